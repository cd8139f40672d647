"""docs/settings.md, written from the settings themselves."""

from server.settings import GPU, Settings


def as_markdown() -> str:
    """The page, every setting with its default: `python -m server.settings_page > docs/settings.md`."""
    rows = [
        f"| `REFDESK_{name.upper()}` | {_shown(name, field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(
        [
            "# Settings",
            "",
            "Read once at start from the environment, then frozen. An unknown name or a bad combination is refused.",
            "This page is written by `python -m server.settings_page`.",
            "",
            "| variable | default | what it does |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def _shown(name: str, default: object) -> str:
    shown = ",".join(default) if isinstance(default, tuple) else default
    return f"`{shown}`" + (f"; gpu: `{GPU[name]}`" if name in GPU else "")


if __name__ == "__main__":
    print(as_markdown(), end="")
