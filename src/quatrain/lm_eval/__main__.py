"""`python -m quatrain.lm_eval`: lm-eval's own command line, with `--model quatrain` in it.

    python -m quatrain.lm_eval run --model quatrain \\
        --model_args path=smollm2-int4,scheme=weight-only --tasks lambada_openai

`quatrain.lm_eval.model.QuatrainLM` documents `--model_args`.
"""

from quatrain.cli import exit_cleanly
from quatrain.errors import InputError


def main() -> None:
    """Run lm-eval's command line."""
    exit_cleanly(_run)


def _run() -> None:
    try:
        from lm_eval.__main__ import cli_evaluate  # pyright: ignore - an extra
    except ImportError as error:
        raise InputError(f"needs lm-eval: pip install 'quatrain[lm-eval]' ({error})") from error
    import quatrain.lm_eval.model  # noqa: F401 - it registers itself

    cli_evaluate()


if __name__ == "__main__":
    main()
