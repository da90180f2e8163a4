"""`python -m quatrain.lm_eval`: lm-eval's own command line, with `--model quatrain` in it.

    python -m quatrain.lm_eval run --model quatrain \\
        --model_args path=smollm2-int4,scheme=weight-only --tasks lambada_openai

What `--model_args` takes is told by `quatrain.verify.lm_eval_model.QuatrainLM`.
"""

from quatrain.cli import exit_cleanly
from quatrain.errors import InputError


def main() -> None:
    """Run lm-eval's command line."""
    exit_cleanly(_run)


def _run() -> None:
    try:
        import lm_eval.__main__  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(f"needs lm-eval: pip install 'quatrain[lm-eval]' ({error})") from error
    import quatrain.verify.lm_eval_model  # noqa: F401 - it registers itself

    lm_eval.__main__.cli_evaluate()


if __name__ == "__main__":
    main()
