"""Results as DICOM objects of the study that they are of, in files and in a PACS: ``pip install 'monai_flowssn[dicom]'``."""

from monai_flowssn.dicom.objects import make_objects, write_objects
from monai_flowssn.dicom.pacs import fetch_series, store_files
from monai_flowssn.dicom.series import read_series

__all__ = ["fetch_series", "make_objects", "read_series", "store_files", "write_objects"]
