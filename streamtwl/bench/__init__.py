"""How well it does: data sets, baselines and trials. Behind the extra `train`."""
