"""The page of all commands, made from what their `--help` says."""

from typing import cast

from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from position_sync_dagster import cli


def commands_page() -> str:
    """Return each command of `position-sync` with its arguments and options."""
    parts = ["# Commands", "`--json` prints for a program. `--home .demo` looks at the demo."]
    for name, command in sorted(commands_of(cast(TyperGroup, get_command(cli.commands())))):
        context = command.context_class(command)
        records = [parameter.get_help_record(context) for parameter in command.params]
        rows = [f"| `{spelled}` | {_cell(text)} |" for spelled, text in filter(None, records)]

        parts += [f"## position-sync {name}", (command.help or "").replace("\b\n", "")]
        parts += ["\n".join(["| | |", "|---|---|", *rows])] if rows else []
    return "\n\n".join(parts)


def commands_of(group: TyperGroup, before: str = "") -> list[tuple[str, TyperCommand | TyperGroup]]:
    """Return the commands of a group and of the groups in it, by the words that call them.

    A group may list a command and import it when it is called: here it is as if it was called.
    """
    commands: list[tuple[str, TyperCommand | TyperGroup]] = []
    for name in group.commands:
        _name, called, _rest = group.resolve_command(group.context_class(group), [name])
        command = cast(TyperCommand | TyperGroup, called)
        commands.append((f"{before}{name}", command))
        if isinstance(command, TyperGroup):
            commands += commands_of(command, f"{before}{name} ")
    return commands


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
