"""The bot on recorded clusters beside a local Slack workspace."""
