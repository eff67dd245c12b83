"""The one outgoing HTTP client: it goes where it may, to the very address that was checked, and is bounded in all.

A name is resolved once. Every address that it has must be public, or lie in a network that is allowed, and the
connection goes to one of those: who answers otherwise the next time that he is asked (DNS rebinding) changes nothing.
Certificate and Host are still those of the name. Proxies that the environment names are not asked.
"""

from __future__ import annotations

import logging
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from http.client import HTTPException
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urljoin

from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError as LibraryError
from urllib3.exceptions import InvalidHeader, ReadTimeoutError, TimeoutError as LibraryTimeout

from monitor import bounded
from monitor.addresses import Network, Place, is_allowed, may, networks, place
from monitor.ports import PluginError
