"""What makes a page readable aloud: headings, tables with captions, cells and images with names."""

from html.parser import HTMLParser


class PageOutline(HTMLParser):
    """Counted as the page is fed to it."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = self.captions = self.links = 0
        self.headings: list[int] = []
        self.unscoped: list[str] = []
        self.images_without_name = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        self.tables += tag == "table"
        self.captions += tag == "caption"
        self.links += "src" in said or "href" in said
        if tag in ("h1", "h2", "h3"):
            self.headings.append(int(tag[1]))
        if tag == "th" and "scope" not in said:
            self.unscoped.append(str(said))
        if tag in ("svg", "img"):
            self.images_without_name += not (said.get("aria-label") or said.get("alt"))
