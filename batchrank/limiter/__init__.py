"""Limits requests and tokens per second, because an API refuses what passes its quota and a job wants all of it.

**Promise.** With ``rpm`` and ``tpm`` the quota times the share, no one second holds more than rpm/60 requests or
tpm/60 tokens, and no one minute more than rpm and tpm (a second is any [t, t + 1), not only those of the clock).
Where that can't be kept:

1. A request of more tokens than tpm/60: it has the second before and after it to itself. One of more than tpm: the
   minute likewise.
2. rpm/60 is no whole number and its whole part wastes too much of it (2.5%): requests are evenly spaced, and a second
   holds the next whole number. The minute holds. Not so where the quota is shared: if each process rounded up, all
   together would pass it. There the whole part is sent and the rest is lost, which a notice tells; an account that
   processes ask for each request would lose nothing.
3. A share of less than one request a second: a second holds one all the same. The minute holds.

**Use.** A caller that always has a request ready gets 98% of the quota; at the least 97% of the requests where rpm/60
is no whole number (of the whole ones of a share), and 97% of the tokens where a request takes a fiftieth of tpm/60.
Larger ones use what whole requests fill of a second: two of 0.4 x tpm/60 are all that one second can hold.

**How.** Requests and tokens each pass a bucket of aiolimiter: one request's worth of time after another, with a
tolerance of one more request or 10 ms for timers that wake late. As a bucket admits its burst and its rate in one
second, the sums of the last second and minute stand beside it: they make the promise true by construction, and the
pace keeps them from ever filling up in a burst. The windows are a little longer than a second and a minute, because
requests arrive less evenly than they are sent.

A request may be held up between its admission and its departure; it is counted anew when it departs, and the promise
holds for departures as long as none is held up for more than a second.

**Bills.** The quota of tokens holds for what is billed: a request is charged what bills have been of their predictions,
ten times its prediction before the first, and its own bill corrects that. Bills that change at once pass the quota
for as long as their answers take. A usage that no request can have is not believed, and told.

**429s.** A few requests refused, for requests or for tokens, may be bad luck on the way to a server that counts
strictly: that account slows to 97%, and all pause for a moment. Where three or more are refused within two seconds,
which are also 10% of a second's requests and were not sent in a bunch (within a quarter of a second), the quota is
smaller than told: 70%, and a pause of a second. Two seconds after the last refusal it recovers, by 3% of the quota a
second; near the speed that was refused only by 0.4%, if it was refused in the 20 seconds before that as well. Growth
refused: back to the slow start of requests that every run begins with, from lower and for longer.
"""

from batchrank.limiter.limiter import Admission, Kind, Limiter, Stats

__all__ = ["Admission", "Kind", "Limiter", "Stats"]
