"""The primary network: the transformer that is trained while its layers are tied."""
