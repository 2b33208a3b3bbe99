"""`python -m offline_eval` is `offline-eval`."""

from offline_eval.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
