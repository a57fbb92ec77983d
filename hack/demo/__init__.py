"""The main job, for real and checked: `make demo`.

A real API server and etcd, a real S3 service, the reference driver and the operator's two
processes under their own roles; a bucket, keys that work, a refusal that is told once, and
nothing left behind. `make demo KEEP=1` leaves it all running at the end.
"""
