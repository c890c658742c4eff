"""The built-in data as datasets of mmdet, mmseg and mmpretrain, generated on first use."""

from typing import Any, ClassVar

from mmse.datasets.bases import base_class
from mmse.datasets.scenes import CLASSES, PALETTE
from mmse.datasets.shapes import (
    DEFAULT_ROOT,
    SEG_CLASSES,
    SEG_PALETTE,
    check_shapes,
    ensure_shapes,
)
from mmse.datasets.shapes_cls import check_shapes_cls, ensure_shapes_cls
from mmse.registry import DATASETS


@DATASETS.register_module()
class ShapesDetDataset(base_class('mmdet.datasets', 'CocoDataset', 'ShapesDetDataset')):  # type: ignore[misc]
    """The built-in data for detection and instance segmentation.

    Args:
        data_root: The data folder; generated if it is missing or empty.
        shapes: Settings of ``mmse.datasets.shapes.ensure_shapes`` that differ from its
            defaults, for data of another size, number or seed (in a folder of their own).
        **kwargs: As for mmdet's ``CocoDataset``.

    Raises:
        UserError: The folder holds something else, or mmdet is missing.
    """

    METAINFO: ClassVar[dict[str, Any]] = {'classes': CLASSES, 'palette': PALETTE}
    check = staticmethod(check_shapes)

    def __init__(
        self, *, data_root: str = DEFAULT_ROOT, shapes: dict[str, int] | None = None, **kwargs: Any
    ) -> None:
        self.shapes = shapes or {}
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """As in mmdet, after making sure that the data are there."""
        ensure_shapes(self.data_root, **self.shapes)
        return super().load_data_list()  # type: ignore[no-any-return]


@DATASETS.register_module()
class ShapesSegDataset(base_class('mmseg.datasets', 'BaseSegDataset', 'ShapesSegDataset')):  # type: ignore[misc]
    """The built-in data for semantic segmentation: background and the six shapes.

    Args:
        data_root: The data folder; generated if it is missing or empty.
        shapes: Settings of ``mmse.datasets.shapes.ensure_shapes`` that differ from its
            defaults, for data of another size, number or seed (in a folder of their own).
        **kwargs: As for mmseg's ``BaseSegDataset``.

    Raises:
        UserError: The folder holds something else, or mmseg is missing.
    """

    METAINFO: ClassVar[dict[str, Any]] = {'classes': SEG_CLASSES, 'palette': SEG_PALETTE}
    check = staticmethod(check_shapes)

    def __init__(
        self, *, data_root: str = DEFAULT_ROOT, shapes: dict[str, int] | None = None, **kwargs: Any
    ) -> None:
        self.shapes = shapes or {}
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """As in mmseg, after making sure that the data are there."""
        ensure_shapes(self.data_root, **self.shapes)
        return super().load_data_list()  # type: ignore[no-any-return]


@DATASETS.register_module()
class ShapesClsDataset(base_class('mmpretrain.datasets', 'CustomDataset', 'ShapesClsDataset')):  # type: ignore[misc]
    """The built-in data for classification: the shape of the only, or of the largest, object.

    Args:
        data_root: The data folder; generated if it is missing or empty.
        split: ``'train'`` or ``'val'``.
        shapes: Settings of ``mmse.datasets.shapes_cls.check_shapes_cls`` that differ from its
            defaults, such as ``crowded=True``.
        **kwargs: As for mmpretrain's ``CustomDataset``.

    Raises:
        UserError: The folder holds something else, or mmpretrain is missing.
    """

    METAINFO: ClassVar[dict[str, Any]] = {'classes': CLASSES}
    check = staticmethod(check_shapes_cls)

    def __init__(
        self,
        *,
        data_root: str,
        split: str = 'train',
        shapes: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.shapes = shapes or {}
        super().__init__(data_root=data_root, ann_file=f'{split}.txt', data_prefix=split, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """As in mmpretrain, after making sure that the data are there."""
        ensure_shapes_cls(self.data_root, **self.shapes)
        return super().load_data_list()  # type: ignore[no-any-return]
