"""Registered versions: promotion, rollback, model cards, lineage."""
