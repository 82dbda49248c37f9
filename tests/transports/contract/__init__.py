"""What every transport must do, as classes of tests for each of them to inherit."""

from tests.transports.contract.addresses import Addresses
from tests.transports.contract.answers import Answers
from tests.transports.contract.connections import Connections
from tests.transports.contract.deadline import Deadline
from tests.transports.contract.ending import Ending
from tests.transports.contract.faults import Faults
from tests.transports.contract.limits import Limits
from tests.transports.contract.sending import Sending
from tests.transports.contract.tls import Tls


class NetworkContract(Sending, Answers, Limits, Deadline, Faults, Addresses, Tls, Connections, Ending):
    """What a transport does on a real network, with receivers that misbehave."""
