"""Running models: sessions of onnxruntime, providers, what is fed in, and how times are taken."""
