"""What operators ask of a server, for both clients: `client.admin`.

>>> from tidegate.admin import chosen
>>> parked = list(client.admin.sequences(chosen(model="weather", life=["parked"])))
"""

from tidegate.admin.facts import Restored, SequenceInfo, StoreCheck, StoreInfo, VersionInfo, Versions, chosen

__all__ = ["Restored", "SequenceInfo", "StoreCheck", "StoreInfo", "VersionInfo", "Versions", "chosen"]
