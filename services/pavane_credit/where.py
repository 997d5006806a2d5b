"""Where the application's own things are: ledgers, the size of the credit line, the faults to play."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Where(BaseSettings):
    """Settings of the reference application, from ``CREDIT_`` variables."""

    model_config = SettingsConfigDict(env_prefix="CREDIT_", frozen=True)

    ledgers: str = Field(default="ledgers", description="the directory of the agents' ledgers, or :memory:")
    line_dm: int = Field(default=3_500_000, ge=0, description="the most exposure that may stand at once")
    faults: str = Field(default="none", description="the seed of the faults to play, or none")
    crash: str = Field(
        default="raise", description="how a crash is played: raise (one process) or kill (a process of its own)"
    )
