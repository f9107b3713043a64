"""Reads an answer of /metrics from standard input with the parsers of Prometheus' own Python client, and prints its samples as JSON.

The argument says which form it must have: `text` or `openmetrics`. A parser that is not content raises.
"""

import json
import sys

from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

parse = {
    "text": parser.text_string_to_metric_families,
    "openmetrics": openmetrics.text_string_to_metric_families,
}[sys.argv[1]]

samples = []
for family in parse(sys.stdin.read()):
    assert family.type in ("counter", "gauge"), (family.name, family.type)
    assert family.documentation, family.name
    for sample in family.samples:
        samples.append({"name": sample.name, "labels": sample.labels, "value": sample.value})
json.dump(samples, sys.stdout)
