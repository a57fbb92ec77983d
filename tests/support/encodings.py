"""Ways in which careless text shows a key, for tests that look for it in what people see."""

import base64
import json
import random
import string
from collections.abc import Iterator
from urllib.parse import quote

# What AWS's documentation uses, and two of each shape that no word hides in.
_RANDOM = random.Random(20)
SECRET_KEYS = (
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    *("".join(_RANDOM.choices(f"{string.ascii_letters}{string.digits}+/", k=40)) for _ in "ab"),
)
ACCESS_KEYS = (
    "AKIAIOSFODNN7EXAMPLE",
    *("".join(_RANDOM.choices(string.ascii_uppercase + string.digits, k=20)) for _ in "ab"),
)
# A piece of a key that is as long as this is too much.
LEAK = 12


def encodings(key: str) -> Iterator[tuple[str, str]]:
    """Each encoding of `key` with its name."""
    raw = key.encode()
    yield "plain", key
    yield "base64", base64.b64encode(raw).decode()
    yield "base64, URL-safe", base64.urlsafe_b64encode(raw).decode()
    yield "base64 without padding", base64.b64encode(raw).decode().rstrip("=")
    yield "hex", raw.hex()
    yield "HEX", raw.hex().upper()
    yield "hex with blanks", raw.hex(" ")
    yield "hex with colons", raw.hex(":")
    yield "hex as Go prints it", ", ".join(f"0x{byte:02x}" for byte in raw)
    yield "bytes as Go prints them", f"[{' '.join(map(str, raw))}]"
    yield "percent, each byte", "".join(f"%{byte:02X}" for byte in raw)
    yield "percent, where needed", quote(key, safe="")
    yield "percent twice", "".join(f"%25{byte:02x}" for byte in raw)
    yield "\\u", "".join(f"\\u{byte:04x}" for byte in raw)
    yield "\\u twice", "".join(f"\\\\u{byte:04x}" for byte in raw)
    yield "\\x", "".join(f"\\x{byte:02x}" for byte in raw)
    yield "octal", "".join(f"\\{byte:03o}" for byte in raw)
    yield "HTML", "".join(f"&#{byte};" for byte in raw)
    yield "full-width letters", "".join(chr(ord(char) + 0xFEE0) for char in key)
    yield "zero-width spaces in it", "\u200b".join(key)
    yield "NULs in it", "\0".join(key)
    yield "lower case", key.lower()
    yield "upper case", key.upper()
    yield "quoted JSON", json.dumps(json.dumps({"k": key}))[1:-1]
    for name, separator in (("blanks", " "), ("line breaks", "\n"), ("dashes", "-")):
        for size in (1, 2, 4, 5, 8, 10):
            pieces = separator.join(key[i : i + size] for i in range(0, len(key), size))
            yield f"{name} after each {size}", pieces
            yield f"{name} after each {size}, lower case", pieces.lower()
    for at in (7, 10, 13):
        yield f"a line break after {at}", f"{key[:at]}\n{key[at:]}"


def around(key: str, secret: str) -> Iterator[tuple[str, str]]:
    """Texts that name what they show, whatever it looks like."""
    basic = base64.b64encode(f"{key}:{secret}".encode()).decode()
    token = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').decode().rstrip("=")
    yield "password=", f"login with password={secret} failed"
    yield "password:", f"login with Password: {secret} failed"
    yield "quoted", f'login failed, "passwd" : "{secret}"'
    yield "JSON", json.dumps({"accessKeyID": key, "accessSecretKey": secret})
    yield "JSON in JSON", json.dumps(json.dumps({"secretKey": secret, "accessKey": key}))
    yield "Go struct", f"{{AccessKey:{key} SecretKey:{secret} Endpoint:http://h}}"
    yield "YAML", f"accessKey: {key}\nsecretKey: {secret}\n"
    yield "XML", f"<AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>"
    yield "environment", f"env MINIO_ROOT_PASSWORD={secret} AWS_ACCESS_KEY_ID={key} failed"
    yield "flags", f"exec: mc alias set --secret-key {secret} --access-key {key}: exit status 1"
    yield "URL userinfo", f"Get https://{key}:{secret}@s3.example.com/b: refused"
    yield "URL query", f"https://s3.example.com/b?AWSAccessKeyId={key}&Signature={secret}&x=1"
    yield (
        "AWS v4 header",
        (
            f"Authorization: AWS4-HMAC-SHA256 Credential={key}/20130524/us-east-1/s3/aws4_request,"
            f" SignedHeaders=host;range, Signature={secret}"
        ),
    )
    yield "AWS v2 header", f"Authorization: AWS {key}:{secret}"
    yield "presigned URL", f"/b?X-Amz-Credential={key}%2F2026&X-Amz-Security-Token={secret}"
    yield "Bearer", f"header Authorization: Bearer {secret} was refused"
    yield "Basic", f"header authorization: Basic {basic} was refused"
    yield "PEM", f"-----BEGIN RSA PRIVATE KEY-----\n{secret}\n{key}\n-----END RSA PRIVATE KEY-----"
    yield "PEM that is cut", f"bad PEM: -----BEGIN PRIVATE KEY-----\\n{secret}\\n{key}"
    yield "JWT", f"token {token}.{basic.replace('=', '')}.{secret} has expired"
    yield "Azure", f"AccountName=x;AccountKey={secret};EndpointSuffix=core.windows.net;k={key}"


def leaks(shown: str, key: str) -> list[str]:
    """The pieces of `key`, LEAK characters long, that can be read in `shown`.

    Case and all that is no letter or figure do not count, on either side.
    """
    text, wanted = squeezed(shown), squeezed(key)
    pieces = (wanted[i : i + LEAK] for i in range(max(1, len(wanted) - LEAK + 1)))
    return [piece for piece in pieces if piece in text]


def squeezed(text: str) -> str:
    return "".join(char for char in text if char.isalnum()).lower()
