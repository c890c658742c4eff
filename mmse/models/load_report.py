"""What loading a checkpoint into a backbone did, for the log."""

from dataclasses import dataclass, field


@dataclass
class LoadReport:
    """What loading a checkpoint into a backbone did.

    Args:
        layout: Whose checkpoint it was; see ``mmse.models.layouts``.
        loaded: Keys of the backbone that the checkpoint has.
        new: Keys that it lacks: attention, deformable offsets, plugins.
        unused: Keys of the checkpoint that the backbone lacks.
        identity: Blocks whose attention starts at the identity.
        unrecorded: Blocks whose attention came without a record of its settings.
        left_out: Sentences about weights that were left out on purpose.
    """

    layout: str
    loaded: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    identity: list[str] = field(default_factory=list)
    unrecorded: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def table(self) -> str:
        """The counts, one line each."""
        lines = [
            f'weights of layout {self.layout}',
            f'  {len(self.loaded):5d} tensors loaded',
            f'  {len(self.new):5d} new',
            f'  {len(self.unused):5d} not used',
        ]
        if self.identity:
            lines.append(
                f'  identity start: the attention of {len(self.identity)} blocks begins as exactly '
                'no attention'
            )
        if self.unrecorded:
            lines.append(
                f'  the weights do not say which attention {len(self.unrecorded)} blocks had: they '
                "are taken as the backbone's"
            )
        return '\n'.join(lines)

    def names(self) -> str:
        """Every key by what became of it."""
        return '\n'.join(
            f'{kind}: {", ".join(keys) or "none"}'
            for kind, keys in (('loaded', self.loaded), ('new', self.new), ('unused', self.unused))
        )
