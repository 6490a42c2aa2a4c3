"""The whole measurement: host, engines, wake-ups, sound device, and what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from duologue.agent import DuplexAgent, cache_folder, default_bundle, has_bundled_agent
from duologue.config import AgentConfig
from duologue.errors import ConfigError, DeviceError, DuologueError, MissingExtraError
from duologue.profile.audio_facts import AudioFacts, AudioProbe
from duologue.profile.budget import judge, latency_parts
from duologue.profile.clock import Clock
from duologue.profile.engines import MeasuredEngine, candidates, failed_engine, measure_engine
from duologue.profile.frames import profile_run, run_frames, user_frames
from duologue.profile.host import read_host
from duologue.profile.report import ProfileReport, Wakeups
from duologue.profile.timing import Timing
from duologue.profile.wakeups import GilHog, Ticker
from duologue.types import FRAME_RATE_HZ, Pcm

_MIN_SECONDS, _MAX_SECONDS = 0.5, 3600.0
_PROBE_SECONDS = 5.0
_MIN_AUDIO_SECONDS = 2.0
NOT_ASKED = "not asked for (--no-audio)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileSettings:
    """What to measure.

    Attributes:
        agent: As `DuplexAgent.load`.
        config: Settings of the conversation that is to meet the budget.
        is_engine_chosen: Whether other engines are left out.
        is_dtype_chosen: Whether other precisions are left out.
        seconds: Length of each run in real time.
        audio: The sound device, or None.
    """

    agent: str | None = None
    config: AgentConfig = field(default_factory=AgentConfig)
    is_engine_chosen: bool = False
    is_dtype_chosen: bool = False
    seconds: float = 10.0
    audio: AudioProbe | None = None

    def __post_init__(self) -> None:
        """Check the length.

        Raises:
            ConfigError: If it is out of range.
        """
        if not _MIN_SECONDS <= self.seconds <= _MAX_SECONDS:
            raise ConfigError(f"seconds = {self.seconds} is out of range; use {_MIN_SECONDS} to {_MAX_SECONDS:.0f}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The report and every frame behind it.

    Attributes:
        report: What was found.
        engines: The engines with their frames, in the report's order.
    """

    report: ProfileReport
    engines: tuple[MeasuredEngine, ...]


def measure_profile(settings: ProfileSettings, clock: Clock, say: Callable[[str], None]) -> Profile:
    """Measure this machine.

    Args:
        settings: What to measure.
        clock: Time.
        say: Told what comes next, one line each.

    Raises:
        DuologueError: The judged engine cannot be loaded.
    """
    say("host")
    host = read_host(device=settings.config.device)
    if settings.agent is None:
        default_bundle(cache_folder(settings.config))
    frames = user_frames(1 + round(settings.seconds * FRAME_RATE_HZ))
    judged, *others = candidates(
        settings.config, is_engine_chosen=settings.is_engine_chosen, is_dtype_chosen=settings.is_dtype_chosen
    )
    more = _WhileLoaded(settings, frames, clock, say)
    say(f"engine {judged.engine} {judged.dtype}")
    try:
        first = measure_engine(settings.agent, judged, frames, clock, and_then=more)
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, DuologueError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"{judged.engine} {judged.dtype} does not run here ({reason}); try another --engine or --dtype"
        ) from error
    engines = [first, *(_compare(settings, other, frames, clock, say) for other in others)]
    compute_ms = first.profile.run("real_time").stages["total"].p95_ms
    parts = latency_parts(delay_frames=more.delay_frames, compute_ms=compute_ms, audio=more.audio)
    report = ProfileReport(
        agent=settings.agent or f"default ({'duologue-mini' if has_bundled_agent() else 'untrained'})",
        host=host,
        pressure=first.pressure,
        engines=tuple(engine.profile for engine in engines),
        wakeups=more.wakeups,
        audio=more.audio,
        no_audio=more.no_audio,
        mouth_to_ear=parts,
        verdict=judge(first.profile, first.times["real_time"], pressure=first.pressure, parts=parts, audio=more.audio),
    )
    return Profile(report=report, engines=tuple(engines))


def _compare(
    settings: ProfileSettings, config: AgentConfig, frames: Sequence[Pcm], clock: Clock, say: Callable[[str], None]
) -> MeasuredEngine:
    say(f"engine {config.engine} {config.dtype}, codec {config.codec_precision}")
    try:
        return measure_engine(settings.agent, config, frames, clock)
    except (DuologueError, RuntimeError, MemoryError) as error:
        # A rival that does not fit on this machine must not lose the judged engine's figures.
        return failed_engine(config, error)


class _WhileLoaded:
    """Measures what needs the judged agent, and keeps it."""

    wakeups: Wakeups
    delay_frames: int

    def __init__(
        self, settings: ProfileSettings, frames: Sequence[Pcm], clock: Clock, say: Callable[[str], None]
    ) -> None:
        self.audio: AudioFacts | None = None
        self.no_audio = NOT_ASKED if settings.audio is None else ""
        self._settings, self._clock, self._say = settings, clock, say
        seconds = min(settings.seconds, _PROBE_SECONDS)
        self._frames = frames[: round(seconds * FRAME_RATE_HZ)]
        self._idle_s = seconds / 2

    def __call__(self, agent: DuplexAgent) -> None:
        self.delay_frames = agent.engine.config.max_delay
        self._say("interpreter and scheduler")
        self.wakeups = self._measure_wakeups(agent)
        if self._settings.audio is None:
            return
        self._say("sound device")
        with agent.session() as session:
            session.step(self._frames[0])
            try:
                seconds = max(self._settings.seconds, _MIN_AUDIO_SECONDS)
                self.audio = self._settings.audio.measure(session.step, seconds)
            except (DeviceError, MissingExtraError) as error:
                self.no_audio = str(error)

    def _measure_wakeups(self, agent: DuplexAgent) -> Wakeups:
        with Ticker(self._clock) as idle:
            self._clock.sleep_until(self._clock.now_s() + self._idle_s)
        return _wakeups(agent, self._frames, self._clock, idle.timing)


def _wakeups(agent: DuplexAgent, frames: Sequence[Pcm], clock: Clock, idle: Timing) -> Wakeups:
    with agent.session() as session, Ticker(clock) as busy:
        run_frames(session.step, frames, clock, pacing="real_time")
    hog = GilHog()
    with agent.session() as session, Ticker(clock) as hogged, hog:
        times = run_frames(session.step, frames, clock, pacing="real_time")
    return Wakeups(
        idle=idle,
        frames=busy.timing,
        hogged=hogged.timing,
        hog_hold=hog.timing,
        hogged_run=profile_run(times, pacing="real_time"),
    )
