"""What all tests need of the process that runs them."""

import signal

# A shell starts what runs in its background with Ctrl-C ignored, and children would inherit that: those
# of the tests that interrupt them would never end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
