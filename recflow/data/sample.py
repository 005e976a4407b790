"""The embedded sample: invented films and people in MovieLens' shape, of any size, the same on every machine.

Taste     every film has one of 48 styles, every style a genre; a user's taste for a style is half genre, half its own,
          so that who likes what tells more than genres do
Exposure  a user draws a style by taste (sometimes by chance), then a film of it by a Zipf-like popularity, never twice,
          and only films released by the session's year; activity is log-normal above 20 ratings
Rating    a constant + generosity(user) + quality(film) + taste(user, style) + noise, in half stars, 3.5 on average
Time      sessions between 1996 and 2018, seconds to a minute between two ratings
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from recflow.data.interactions import RawData
from recflow.errors import RecflowError

NAME = "sample"
SUMMARY = "Invented films and ratings in MovieLens' shape, generated, 40,000 ratings unless told otherwise"
GENERATOR_VERSION = 1
MIN_RATINGS = 20

_BLOCK = 2_000_000  # ratings drawn at a time: bounds memory
_CHANCE = 0.10  # share of draws that ignore taste
_TASTE = 2.1  # how sharply taste picks a style
_AXES = 6  # what tastes differ in: the rank of the preference matrix
_FLAT_AFTER = 6  # rounds after which a user who has seen his styles takes any film

#: Number of styles per genre: how common the genre is.
_STYLES = {
    "Drama": 6, "Comedy": 5, "Action": 4, "Thriller": 4, "Adventure": 3, "Crime": 3, "Horror": 3, "Romance": 3,
    "Sci-Fi": 3, "Animation": 2, "Children": 2, "Documentary": 2, "Fantasy": 2, "Mystery": 2, "Film-Noir": 1,
    "Musical": 1, "War": 1, "Western": 1,
}  # fmt: skip

#: Genres that go well with each genre; a style favours one of them.
_COMPANIONS = {
    "Drama": "Romance War Crime", "Comedy": "Romance Drama Crime", "Action": "Adventure Thriller Sci-Fi",
    "Thriller": "Crime Mystery Action", "Adventure": "Action Fantasy Children", "Crime": "Drama Thriller Mystery",
    "Horror": "Thriller Mystery Sci-Fi", "Romance": "Drama Comedy Musical", "Sci-Fi": "Adventure Thriller Action",
    "Animation": "Children Fantasy Comedy", "Children": "Animation Adventure Comedy", "Documentary": "War Crime Drama",
    "Fantasy": "Adventure Romance Children", "Mystery": "Thriller Crime Film-Noir", "Film-Noir": "Crime Mystery Drama",
    "Musical": "Romance Comedy Drama", "War": "Drama Action Adventure", "Western": "Adventure Drama Action",
}  # fmt: skip

#: Words for titles; a noun belongs to one genre only, which keeps titles unique across genres.
_NOUNS = {
    "Drama": "Harbor Ferry Verdict Winter Inheritance Ledger Threshold Bridge Kitchen Silence Promise Tide Window",
    "Comedy": "Landlord Honeymoon Umbrella Parrot Neighbor Bakery Mishap Casserole Reunion Lottery Moustache Caterer",
    "Action": "Convoy Detonator Ambush Hangar Pursuit Vault Falcon Blockade Turbine Ricochet Overpass Strike Throttle",
    "Thriller": "Bystander Alibi Corridor Commuter Cipher Hostage Deadline Surveillance Informant Undertow Basement",
    "Adventure": "Expedition Compass Lagoon Caravan Summit Archipelago Map Rapids Temple Voyage Glacier Monsoon",
    "Crime": "Heist Syndicate Locksmith Racket Bookmaker Getaway Safehouse Forger Smuggler Wiretap Fixer Docks",
    "Horror": "Cellar Scarecrow Séance Hollow Crypt Doll Marsh Whisper Mortuary Attic Thicket Gravedigger Nursery",
    "Romance": "Waltz Terrace Proposal Bouquet Serenade Postcard Vineyard Valentine Ballroom Bicycle Balcony",
    "Sci-Fi": "Orbit Android Nebula Signal Colony Reactor Airlock Algorithm Meteor Satellite Hologram Paradox Starship",
    "Animation": "Hedgehog Kettle Dragonfly Robot Penguin Kite Acorn Snowman Puppet Submarine Toymaker Firefly",
    "Children": "Treehouse Pony Puddle Sandcastle Kitten Balloon Playground Duckling Lantern Marble Carousel Backpack",
    "Documentary": "Archive Delta Migration Factory Harvest Census Reef Railway Laboratory Newsroom Shipyard Aquifer",
    "Fantasy": "Sorcerer Amulet Griffin Oracle Citadel Wyvern Spellbook Kingdom Enchantment Moonstone Throne Riddle",
    "Mystery": "Manor Locket Portrait Clockmaker Staircase Inkwell Chessboard Garden Diary Guestroom Telegram",
    "Film-Noir": "Alley Cigarette Streetlamp Pawnshop Trenchcoat Nightclub Typewriter Hatcheck Revolver Fog Pier",
    "Musical": "Melody Chorus Encore Accordion Trumpet Rhapsody Tambourine Overture Songbird Footlights Duet Cabaret",
    "War": "Trench Regiment Armistice Outpost Bugle Medic Barricade Frontline Squadron Ration Sentry Dispatch",
    "Western": "Canyon Saddle Stagecoach Prairie Homestead Rancher Saloon Drifter Corral Gulch Mustang Telegraph",
}  # fmt: skip
_ADJECTIVES = """
Amber Ashen Borrowed Bitter Brass Broken Candid Careless Cobalt Copper Crooked Crimson Distant Drowned Electric Emerald
Endless Faded Fearless Foreign Forgotten Fragile Frozen Gentle Gilded Hasty Honest Idle Indigo Iron Ivory Jagged Lonely
Lucky Midnight Modest Narrow Northern Opal Painted Paper Patient Pewter Quiet Reluctant Restless Salted Sapphire Scarlet
Second Seventh Shallow Silent Silver Sleepless Southern Stolen Stubborn Sunken Tender Thirteenth Threadbare Twisted
Unlikely Unspoken Upside-Down Vanishing Velvet Wandering Wayward Weathered Wooden
"""
_ENDINGS = """
at Noon|at Seventeen|by Candlelight|for Strangers|from Montreal|from Trieste|in Autumn|in Broad Daylight|in Copenhagen
in Lisbon|in Small Hours|in Tangier|in the Rain|of Ashes|of Consequence|of Echoes|of Good Intentions|of Ravens|of Salt
of Second Chances|of Seville|of Smoke|of Thunder|of Valparaíso|on Ember Street|on Marigold Lane|on Willow Creek
out of Season|under Glass|under Falling Water|with Seven Doors|with Wolves|without a Name|without Shadows
"""
_NAMES = """
Abigail Agnes Ambrose Beatrix Bernard Clara Clement Cordelia Dahlia Desmond Edith Eleanor Ezra Felix Florence Gideon
Greta Harriet Hector Ingrid Isidore Josephine Julian Leopold Lydia Magnus Mabel Nadia Octavia Orson Percy Philippa
Quentin Ramona Rufus Sabine Silas Tobias Ursula Viola Walter Wilhelmina Yusuf Zelda
"""

_FIRST_DAY = 822_873_600  # 1996-01-29, when MovieLens begins
_LAST_DAY = 1_542_240_000  # 2018-11-15: the longest session still ends within the year
_DAY = 86_400

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def generate(ratings: int = 40_000, seed: int = 7) -> RawData:
    """Invent a dataset: nothing is downloaded, and the same arguments give the same rows.

    Args:
        ratings: How many ratings, at least 1; users and films grow with it (40,000: about 600 and 900).
        seed: Seed of every choice, not negative.

    Returns:
        Half-star ratings from 0.5 to 5.0, films with titles, years and genres, and users without features.

    Raises:
        RecflowError: If an argument is out of range.

    Example:
        >>> generate(1_000).ratings.shape
        (1000, 4)
    """
    sha256 = content_hash(ratings, seed)
    rng = np.random.default_rng([seed, 0])
    num_items = max(200, round(900 * (ratings / 40_000) ** 0.5))
    films, items = _make_films(num_items, rng)
    activity = _make_activity(ratings, int((films.year <= 1996).sum()) * 3 // 5, rng)
    # a block of users at a time, each with random numbers of its own: memory does not grow with the block count
    blocks = np.cumsum(activity) // _BLOCK
    edges = np.searchsorted(blocks, np.arange(int(blocks[-1]) + 2))
    tables = [
        _rate(films, activity[first:last], first, np.random.default_rng([seed, 1, number]))
        for number, (first, last) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
        if last > first
    ]
    users = pl.DataFrame({"user_id": np.arange(1, len(activity) + 1, dtype=np.int64)})
    return RawData(NAME, sha256, pl.concat(tables), items, users)


def content_hash(ratings: int, seed: int = 7) -> str:
    """SHA-256 over the generator's version and arguments: equal hashes, equal data.

    Args:
        ratings: As for `generate`.
        seed: As for `generate`.

    Returns:
        64 hexadecimal digits.

    Raises:
        RecflowError: If an argument is out of range.
    """
    if ratings < 1:
        raise RecflowError(f"{NAME}: ratings is {ratings}, expected a whole number from 1, such as 40000")
    if seed < 0:
        raise RecflowError(f"{NAME}: seed is {seed}, expected a whole number from 0")
    return hashlib.sha256(f"recflow {NAME} {GENERATOR_VERSION} ratings={ratings} seed={seed}".encode()).hexdigest()


@dataclass(frozen=True)
class _Films:
    style: Ints  # style of each film
    year: Ints
    quality: Floats  # what everyone adds to or takes from its rating
    by_style: Ints  # films ordered by style
    cumulative: Floats  # in that order: style + share of the style's popularity up to and with this film
    share: Floats  # of each style in all popularity
    axes: Floats  # what each style appeals to


def _make_films(num_items: int, rng: np.random.Generator) -> tuple[_Films, pl.DataFrame]:
    genres = list(_STYLES)
    genre_of = np.repeat(np.arange(len(genres)), list(_STYLES.values()))
    num_styles = len(genre_of)
    style = rng.permutation(num_items) % num_styles
    year = 2018 - np.minimum(rng.gamma(1.4, 18.0, num_items).astype(np.int64), 93)
    quality = rng.standard_normal(num_items)
    appeal = 0.5 * quality + rng.standard_normal(num_items)  # good films are seen more, yet not always
    rank = np.empty(num_items, dtype=np.int64)
    rank[np.argsort(-appeal, kind="stable")] = np.arange(num_items)
    weight = 1.0 / (rank + 18.0) ** 0.82
    by_style = np.argsort(style, kind="stable")
    total = np.bincount(style, weights=weight)
    running = np.cumsum(weight[by_style])
    before = np.cumsum(total) - total
    cumulative = style[by_style] + (running - before[style[by_style]]) / total[style[by_style]]
    films = _Films(style, year, 0.45 * quality, by_style, cumulative, total / total.sum(), _make_axes(rng))

    favoured = rng.integers(0, 3, num_styles)
    extra = rng.random((num_items, 2)) < (0.65, 0.25)
    other = rng.integers(0, 3, num_items)
    titles = _make_titles(genre_of[style], rng)
    lists: list[list[str]] = []
    for number in range(num_items):
        own = genres[genre_of[style[number]]]
        friends = _COMPANIONS[own].split()
        names = {own}
        picks = zip((favoured[style[number]], other[number]), extra[number], strict=True)
        names.update(friends[pick] for pick, given in picks if given)
        lists.append(sorted(names))
    items = pl.DataFrame(
        {
            "item_id": np.arange(1, num_items + 1, dtype=np.int64),
            "title": [f"{title} ({when})" for title, when in zip(titles, year.tolist(), strict=True)],
            "year": year.astype(np.int32),
            "genres": pl.Series(lists, dtype=pl.List(pl.String)),
        }
    )
    return films, items


def _make_titles(genre: Ints, rng: np.random.Generator) -> list[str]:
    """A title of its own for each film: every combination of the genre's words once, in random order, then sequels."""
    titles = [""] * len(genre)
    adjectives, names = _ADJECTIVES.split(), _NAMES.split()
    endings = _ENDINGS.strip().replace("\n", "|").split("|")
    for number, words in enumerate(_NOUNS[name].split() for name in _STYLES):
        combinations = [f"The {adjective} {noun}" for noun in words for adjective in adjectives]
        combinations += [f"The {noun} {ending}" for noun in words for ending in endings]
        combinations += [f"{name}'s {noun}" for noun in words for name in names]
        combinations += [f"{'An' if noun[0] in 'AEIOU' else 'A'} {noun} for {name}" for noun in words for name in names]
        order = rng.permutation(len(combinations)).tolist()
        for place, film in enumerate(np.flatnonzero(genre == number).tolist()):
            sequel, which = divmod(place, len(order))
            titles[film] = combinations[order[which]] + (f" {sequel + 1}" if sequel else "")
    return titles


def _make_activity(ratings: int, most: int, rng: np.random.Generator) -> Ints:
    """Ratings per user: log-normal above `MIN_RATINGS`, at most about `most`, summing to `ratings`."""
    mean = 67 * max(1.0, ratings / 40_000) ** 0.13
    num_users = min(max(round(ratings / mean), math.ceil(ratings / most)), max(1, ratings // MIN_RATINGS))
    if num_users == 1:
        return np.array([ratings], dtype=np.int64)
    most = max(most, math.ceil(ratings / num_users))  # a handful of users may have to stretch
    eager = rng.lognormal(0.0, 1.0, num_users)
    spare = ratings - MIN_RATINGS * num_users
    activity = np.minimum(MIN_RATINGS + np.floor(spare * eager / eager.sum()).astype(np.int64), most)
    # what rounding and the cap have left over goes round to whoever still has room
    while left := ratings - int(activity.sum()):
        room = most - activity
        given = np.minimum(room, math.ceil(left / int((room > 0).sum())))
        activity += np.clip(left - (np.cumsum(given) - given), 0, given)
    return np.asarray(activity, dtype=np.int64)


def _rate(films: _Films, activity: Ints, first_user: int, rng: np.random.Generator) -> pl.DataFrame:
    """The ratings of one block of users, sorted by user and time."""
    taste = _make_taste(films.axes, len(activity), rng)
    start, first_session = _make_sessions(activity, rng)
    user, item, session = _choose(films, activity, taste, start, first_session, rng)

    order = np.argsort(session, kind="stable")  # sessions are numbered by user and time
    user, item, session = user[order], item[order], session[order]
    elapsed = np.cumsum(rng.integers(4, 45, len(user)))
    opens = np.searchsorted(session, session)  # the first row of each row's session
    time = start[session] + elapsed - elapsed[opens]

    generous = 0.38 * rng.standard_normal(len(activity))
    stars = 2.88 + generous[user] + films.quality[item] + 0.6 * taste[user, films.style[item]]
    stars += 0.62 * rng.standard_normal(len(user))
    steps = np.where(rng.random(len(activity)) < 0.3, 1, 2)[user]  # some people give whole stars only
    rating = np.clip(np.floor(stars * steps + 0.5) / steps, 0.5, 5.0)
    return pl.DataFrame(
        {
            "user_id": user + (first_user + 1),
            "item_id": item + 1,
            "rating": rating.astype(np.float32),
            "time": time,
        }
    )


def _make_taste(axes: Floats, num_users: int, rng: np.random.Generator) -> Floats:
    """Each user's liking of each style, standard normal, of the rank of `axes`; shape ``[num_users, num_styles]``."""
    person = rng.standard_normal((num_users, axes.shape[1]))
    taste = np.zeros((num_users, len(axes)))
    for axis in range(axes.shape[1]):  # in this order, not by a matrix product, whose last bits differ between machines
        taste += person[:, axis, None] * axes[:, axis]
    return taste


def _make_axes(rng: np.random.Generator) -> Floats:
    """What each style appeals to, of unit length: half what its genre does, half of its own."""
    genre_of = np.repeat(np.arange(len(_STYLES)), list(_STYLES.values()))
    axes = rng.standard_normal((len(_STYLES), _AXES))[genre_of] + rng.standard_normal((len(genre_of), _AXES))
    return np.asarray(axes / np.sqrt((axes**2).sum(axis=1, keepdims=True)), dtype=np.float64)


def _make_sessions(activity: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Start of every session, sorted by user and time, and each user's first session (one entry more than users)."""
    num_users = len(activity)
    count = 1 + np.minimum(rng.exponential(activity / 40.0), 60).astype(np.int64)
    joined = rng.integers(_FIRST_DAY, _LAST_DAY, num_users)
    stays = rng.exponential(np.where(rng.random(num_users) < 0.3, 900.0, 20.0)) * _DAY  # most leave within a month
    owner = np.repeat(np.arange(num_users), count)
    start = joined[owner] + (rng.random(len(owner)) * np.minimum(stays, _LAST_DAY - joined)[owner]).astype(np.int64)
    return start[np.lexsort((start, owner))], np.append(0, np.cumsum(count))


def _choose(
    films: _Films, activity: Ints, taste: Floats, start: Ints, first_session: Ints, rng: np.random.Generator
) -> tuple[Ints, Ints, Ints]:
    """User, film and session of every rating: draws with replacement, a pair's first counts, until all have theirs."""
    num_styles, num_items = len(films.share), len(films.style)
    pull = films.share * np.exp(_TASTE * taste)
    pull = (1 - _CHANCE) * pull / pull.sum(axis=1, keepdims=True) + _CHANCE * films.share
    cumulative = (np.cumsum(pull, axis=1) + np.arange(len(activity))[:, None]).ravel()
    last_of_style = np.cumsum(np.bincount(films.style)) - 1
    year = start.astype("datetime64[s]").astype("datetime64[Y]").astype(np.int64) + 1970

    open_slots = activity.copy()
    seen = np.empty(0, dtype=np.int64)  # sorted user * num_items + film
    chosen: list[tuple[Ints, Ints, Ints]] = []
    attempt = 0
    while (waiting := np.flatnonzero(open_slots)).size:
        user = np.repeat(waiting, open_slots[waiting] * 3 // 2 + 4)
        sessions = first_session[user + 1] - first_session[user]
        session = first_session[user] + (rng.random(len(user)) * sessions).astype(np.int64)
        if attempt < _FLAT_AFTER:
            style = np.searchsorted(cumulative, user + rng.random(len(user)), side="right") - user * num_styles
            style = np.clip(style, 0, num_styles - 1)
            place = np.searchsorted(films.cumulative, style + rng.random(len(user)), side="right")
            item = films.by_style[np.minimum(place, last_of_style[style])]
        else:
            item = rng.integers(0, num_items, len(user))
        attempt += 1

        key = user * num_items + item
        fresh = films.year[item] <= year[session]
        if seen.size:
            fresh &= seen[np.minimum(np.searchsorted(seen, key), len(seen) - 1)] != key
        rows = np.flatnonzero(fresh)
        rows = rows[np.sort(np.unique(key[rows], return_index=True)[1])]  # a pair's first draw, in the order drawn
        drawn = np.bincount(user[rows], minlength=len(activity))
        rank = np.arange(len(rows)) - (np.cumsum(drawn) - drawn)[user[rows]]
        rows = rows[rank < open_slots[user[rows]]]
        open_slots -= np.bincount(user[rows], minlength=len(activity))
        seen = np.sort(np.concatenate([seen, key[rows]]))
        chosen.append((user[rows], item[rows], session[rows]))
    users, items, sessions = (np.concatenate(column) for column in zip(*chosen, strict=True))
    return users, items, sessions
