"""Of this folder the test suite runs the examples in Markdown; `make docs` runs the rest."""

collect_ignore_glob = ["*.py", "_build/*", "gallery/*", "api/generated/*"]
