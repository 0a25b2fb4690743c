"""How late the simulator's event loop is."""

import asyncio
import time

from ib_gateway_simulator.gateway.pulse import PULSE_S, Pulse
from ib_gateway_simulator.gateway.timers import Timers


async def test_a_busy_loop_is_behind_also_when_its_pulse_comes_before_what_waited():
    loop = asyncio.get_running_loop()
    timers = Timers(paused=lambda: False)
    pulse = Pulse(timers)
    behind: list[float] = []
    pulse.start()
    # The three are due when the loop goes on; it runs them in the order of their times.
    loop.call_later(PULSE_S / 2, time.sleep, 0.5)
    loop.call_later(PULSE_S * 2, lambda: behind.append(pulse.behind_s()))
    time.sleep(PULSE_S * 3)
    await asyncio.sleep(PULSE_S)
    assert behind[0] >= 0.5
    while pulse.behind_s() > PULSE_S:
        await asyncio.sleep(PULSE_S)
    timers.close()


async def test_nobody_is_behind_before_the_first_pulse():
    assert Pulse(Timers(paused=lambda: False)).behind_s() == 0.0
