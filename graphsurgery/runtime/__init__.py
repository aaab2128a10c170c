"""Running models: sessions of onnxruntime, providers, what is fed in, and what arrives inside."""
