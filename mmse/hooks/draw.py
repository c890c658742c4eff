"""Pictures of what a test predicts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from mmse.engine.pictures import draw_pair, write_png
from mmse.registry import HOOKS


@HOOKS.register_module()
class DrawHook(Hook):
    """Draw every tested image as a pair, ground truth left and prediction right.

    In a distributed test only the images of the main process are drawn.

    Args:
        out_dir: The folder for the pictures, created if missing; each is named after its image.
    """

    def __init__(self, out_dir: str) -> None:
        self.out_dir = Path(out_dir)

    def after_test_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Draw the samples of one batch."""
        if not is_main_process():  # MMEngine's visualizers draw nothing there
            return
        self.out_dir.mkdir(parents=True, exist_ok=True)
        for sample in outputs or ():
            pair = draw_pair(runner.visualizer, sample)
            write_png(pair, self.out_dir / f'{Path(sample.img_path).stem}.png')
