"""An application that receives webhooks."""
