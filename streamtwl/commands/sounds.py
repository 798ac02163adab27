"""`streamtwl sounds ...`: the sounds that were taught."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from streamtwl.errors import UsageError
from streamtwl.file_names import one_line

app = typer.Typer(
    help="The sounds that you taught: list, show, rename, remove, export, import.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="A sound of `streamtwl sounds list`.")]
Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME]...", help="Sounds. (default: all)", show_default=False),
]
Archive = Annotated[
    Path, typer.Option("-o", "--output", help="The archive to make, as kitchen.zip.")
]
ArchiveFile = Annotated[Path, typer.Argument(metavar="FILE", help="Of `sounds export`.")]
NameOrNone = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="The sound.", show_default=False)
]
OfBackground = Annotated[
    bool, typer.Option("--background", help="What `teach --background` kept, and no sound.")
]


@app.command("list")
def list_sounds() -> None:
    """List the sounds that are taught."""
    from streamtwl.sounds.store import Store

    sounds = Store().sounds()
    if not sounds:
        print('no sound is taught yet: `streamtwl teach "kettle" kettle.wav`')
        return
    table = Table("name", "recordings", "seconds", "false alarms a day", "taught")
    for sound in sounds:
        seconds = sum(example.seconds for example in sound.examples)
        table.add_row(
            escape(sound.name),
            str(len(sound.examples)),
            f"{seconds:.1f}",
            f"{sound.false_alarms_a_day:g}",
            sound.taught_at[:10],
        )
    Console().print(table)


@app.command("show")
def show(name: Name) -> None:
    """Show a sound's recordings, its threshold, and how well it is known."""
    from streamtwl.commands import teach
    from streamtwl.sounds.store import Store

    store = Store()
    sound = store.find(name)
    folder = store.folder / "recordings"
    for example in sound.examples:
        print(one_line(f"{folder / example.file}  {example.seconds:.2f} s  {example.origin}"))
    teach.report(store, teach.teacher_of_default(), name)


@app.command("remove")
def remove(name: NameOrNone = None, background: OfBackground = False) -> None:
    """Remove a sound and its recordings."""
    from streamtwl.commands import teach
    from streamtwl.sounds.store import Store

    store = Store()
    if background == (name is not None):
        raise UsageError("sounds remove: name a sound, or --background")
    if background:
        print("removed" if store.remove_background() else "there was no background")
    else:
        removed = store.remove(name or "")
        print(f"removed {removed.name} and its recordings, {len(removed.examples)}")
    teach.reload_listeners()


@app.command("rename")
def rename(name: Name, new: Annotated[str, typer.Argument(help="Its new name.")]) -> None:
    """Give a sound another name."""
    from streamtwl.commands import teach
    from streamtwl.sounds.store import Store

    Store().rename(name, new)
    teach.reload_listeners()


@app.command("export")
def export(output: Archive, names: Names = None) -> None:
    """Write sounds with their recordings to an archive, for another machine."""
    from streamtwl.sounds import archive
    from streamtwl.sounds.store import Store

    written = archive.export(Store(), names or [], output)
    print(f"{output}: {', '.join(sound.name for sound in written)}")


@app.command("import")
def load(file: ArchiveFile) -> None:
    """Add the sounds of an archive to yours."""
    from streamtwl.commands import teach
    from streamtwl.sounds import archive
    from streamtwl.sounds.store import Store

    for sound in archive.load(Store(), file):
        print(f"{sound.name}: {len(sound.examples)} recordings")
    teach.reload_listeners()
