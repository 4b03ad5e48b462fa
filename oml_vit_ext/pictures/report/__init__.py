"""One page on a run: figures, galleries of queries, curves; a single file that needs no network."""

from oml_vit_ext.pictures.report.content import Report
from oml_vit_ext.pictures.report.curves import Curve, learning_curves
from oml_vit_ext.pictures.report.gather import About, gather
from oml_vit_ext.pictures.report.page import render, write_report
from oml_vit_ext.pictures.report.run_report import report_of_run

__all__ = ["About", "Curve", "Report", "gather", "learning_curves", "render", "report_of_run", "write_report"]
