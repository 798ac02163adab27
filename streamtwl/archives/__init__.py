"""Archives: many recordings, in folders or object stores, to one Parquet data set of events.

`store.py` has the folders and buckets, `dataset.py` what a job writes, `worker.py` the labelling of
one file or of a stretch of a long one, `job.py` the whole, `ray_engine.py` the same on a cluster,
`query.py` what `streamtwl history` reads. Nothing here is imported by what listens.
"""
