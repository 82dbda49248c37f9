"""A stranger's server that receives webhooks, verifies them and shows what arrives."""
