"""Pictures of what a test predicts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from mmse.engine.pictures import draw_pair, write_png
from mmse.registry import HOOKS
from mmse.utils.names import names_below


@HOOKS.register_module()
class DrawHook(Hook):
    """Draw every tested image as a pair, ground truth left and prediction right.

    In a distributed test only the images of the main process are drawn.

    Args:
        out_dir: The folder for the pictures, created if missing. Each is named after its image,
            with the subfolders in which the images are.
    """

    def __init__(self, out_dir: str) -> None:
        self.out_dir = Path(out_dir)
        self._names: dict[str, Path] = {}

    def before_test_epoch(self, runner: Any) -> None:
        """Name the pictures."""
        dataset = runner.test_dataloader.dataset
        images = [dataset.get_data_info(index)['img_path'] for index in range(len(dataset))]
        self._names = names_below(images, '.png')

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
        for sample in outputs or ():
            path = self.out_dir / self._names[sample.img_path]
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(draw_pair(runner.visualizer, sample), path)
