"""The durable truth: jobs, tasks, attempts, events, assets, in SQL.

``schema.py`` says what is kept and what the database itself promises; ``queries/`` are plain functions
``(Connection, values) -> values`` without a clock; ``executors.py`` decides on which thread and in which transaction they
run; ``sql_store.py`` puts the two together behind ``interfaces.Store``.
"""
