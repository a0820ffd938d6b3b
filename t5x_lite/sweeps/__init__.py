"""Ablation sweeps: arms that differ in one factor, run under equal budgets and compared with error bars."""
