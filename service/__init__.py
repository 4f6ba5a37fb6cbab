"""vqd: an inference service for VQ-Diffusion text-to-image models."""

import os

# gRPC's core writes to stderr past every Python logger; what goes wrong reaches us as errors all the same. It reads
# this once, when it is loaded, so no module of ours may be earlier.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
