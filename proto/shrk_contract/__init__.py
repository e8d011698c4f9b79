"""The contract between coordinator and node agents: the only thing the two share.

`terms` holds the words and bounds both sides reason with (pure), `convert` turns wire messages into
them and back, `batching` writes frames in batches, and `v1` is generated from `proto/schema`.
"""

import os

# gRPC's C core writes lines of its own to stderr, in the middle of ours; every error it means reaches us as one.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
