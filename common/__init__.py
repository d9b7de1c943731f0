"""Everything that knows no framework: contract, laws, statistics, studies, reports."""
