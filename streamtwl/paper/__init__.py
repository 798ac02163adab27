"""The experiment of arXiv 2509.19676 on labelled clips: `streamtwl paper`."""
