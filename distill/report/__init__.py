"""Reports of a run: `page.write_report` writes report.html, `charts.plot_losses` draws losses.png.

Nothing is imported here, because `pocketclip report --help` must work without the packages that draw.
"""
