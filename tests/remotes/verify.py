"""Verifies signed provenance with libraries that know nothing of isolith: `verify.py ENVELOPE KEY [ARCHIVE]`."""

import base64
import hashlib
import json
import sys

from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

with open(sys.argv[1], encoding="utf-8") as file:
    document = json.load(file)
algorithm, public = sys.argv[2].split(":")
assert algorithm == "ed25519"
keyid = document["signatures"][0]["keyid"]
envelope = Envelope.from_dict(document)
key = SSlibKey(keyid, "ed25519", "ed25519", {"public": base64.b64decode(public).hex()})
assert list(envelope.verify([key], 1)) == [keyid]

statement = json.loads(envelope.payload)
parsed = json_format.ParseDict(statement, statement_pb2.Statement())
Statement.copy_from_pb(parsed).validate()
assert parsed.predicate_type == "https://slsa.dev/provenance/v1", parsed.predicate_type
provenance = json_format.ParseDict(statement["predicate"], provenance_pb2.Provenance())
assert provenance.build_definition.build_type and provenance.run_details.builder.id
assert provenance.build_definition.resolved_dependencies
if len(sys.argv) > 3:
    with open(sys.argv[3], "rb") as file:
        assert statement["subject"][0]["digest"]["sha256"] == hashlib.sha256(file.read()).hexdigest()
print(len(provenance.build_definition.resolved_dependencies))
