"""ExecuTorch's C++ tokenizer, as a program's runner on a phone uses it."""


def cpp_tokenizer(folder):
    """That of the tokenizer.json in `folder`."""
    from pytorch_tokenizers import CppHFTokenizer

    tokenizer = CppHFTokenizer()
    tokenizer.load(str(folder))
    return tokenizer
