#!/usr/bin/env python3
"""Makes a container: ACCOUNT-URL NAME KEY. Signed with the shared key of the account.

https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key
"""
import base64
import hashlib
import hmac
import sys
import urllib.request
from email.utils import formatdate
from urllib.parse import urlsplit

account_url, name, key = sys.argv[1:]
path = urlsplit(account_url).path
account = path.strip("/")
headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
shown = "".join(f"{header}:{value}\n" for header, value in sorted(headers.items()))
# The verb, eleven headers that are not there, those of Azure, and what is asked for.
text = f"PUT\n{chr(10) * 11}{shown}/{account}{path}/{name}\nrestype:container"
signature = base64.b64encode(hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()).decode()
headers["Authorization"] = f"SharedKey {account}:{signature}"
request = urllib.request.Request(f"{account_url}/{name}?restype=container", method="PUT", headers=headers)
with urllib.request.urlopen(request) as answer:
    assert answer.status == 201, answer.status
