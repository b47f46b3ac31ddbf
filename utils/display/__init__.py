"""All that shows a run: its event log, report, curves, galleries, pages and visdom windows."""
