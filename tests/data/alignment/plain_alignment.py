"""The definition of the alignment, written as a scan over everything, frame by frame, in plain Python."""

import math


def plain_video(words, labels, features, *, how, membership, minimum, pauses, max_length, within=None, by_file=False):
    """Align one video.

    Args:
        words: [(start, end, text)].
        labels: [(start, end)].
        features: {modality: [(start, end, [values])]}.

    Returns:
        {segment: ([word index], {modality: [vector or None]})}, {source: {fate: count}}.
    """
    fates = {"words": first_fates(words, lambda item: "pause" if item[2] in pauses else None)}
    for name, frames in features.items():
        fates[name] = first_fates(frames, lambda item: None if any(map(finite, item[2])) else "nonfinite")
    samples, kept_words, cut_words = {}, set(), set()
    segments = [index for index, label in enumerate(labels) if valid(label)]
    for segment in segments:
        inside = [
            index
            for index, fate in enumerate(fates["words"])
            if fate is None and belongs(words[index], labels[segment], membership, minimum)
        ]
        inside.sort(key=lambda index: index if by_file else (words[index][0], words[index][1], index))
        chosen = inside if max_length is None else inside[:max_length]
        kept_words.update(chosen)
        cut_words.update(inside[len(chosen) :])
        if chosen:
            samples[segment] = (chosen, {name: [None] * len(chosen) for name in features})
    for index, fate in enumerate(fates["words"]):
        if fate is None:
            fates["words"][index] = (
                "used" if index in kept_words else "truncated" if index in cut_words else "outside_segments"
            )
    for name, frames in features.items():
        nearest_of = set()
        for chosen, vectors in samples.values():
            for step, index in enumerate(chosen):
                vectors[name][step] = vector_of(words[index], frames, fates[name], how, minimum)
                if vectors[name][step] is None and within is not None:
                    row = nearest_row(words[index], frames, fates[name], within)
                    if row is not None:
                        vectors[name][step] = [value if finite(value) else 0.0 for value in frames[row][2]]
                        nearest_of.add(row)
        fates[name] = [
            fate
            or ("used" if row in nearest_of else None)
            or last_fate(frame, words, kept_words, cut_words, [labels[s] for s in segments], minimum)
            for row, (fate, frame) in enumerate(zip(fates[name], frames, strict=True))
        ]
    seen = {
        index for chosen, vectors in samples.values() for index in chosen
        if any(vector is not None for found in vectors.values() for vector in found)
    }  # fmt: skip
    fates["words"] = ["no_frames" if f == "used" and i not in seen else f for i, f in enumerate(fates["words"])]
    return samples, {source: {fate: found.count(fate) for fate in set(found)} for source, found in fates.items()}


def finite(value):
    return not math.isnan(value) and not math.isinf(value)


def valid(item):
    return finite(item[0]) and finite(item[1]) and item[1] >= item[0]


def shared(one, two):
    return min(one[1], two[1]) - max(one[0], two[0])


def first_fates(items, rule):
    found, seen = [], set()
    for item in items:
        if not valid(item):
            found.append("invalid_interval")
        elif repr(item) in seen:  # repr tells NaN from numbers and is equal for equal ones
            found.append("duplicate")
        else:
            found.append(rule(item))
        seen.add(repr(item))
    return found


def belongs(word, label, membership, minimum):
    if membership == "midpoint":
        return label[0] <= (word[0] + word[1]) / 2 < label[1]
    if membership == "overlap":
        return shared(word, label) > minimum
    return label[0] <= word[0] and word[1] <= label[1]


def vector_of(word, frames, fates, how, minimum):
    mine = [frame for frame, fate in zip(frames, fates, strict=True) if fate is None and shared(word, frame) > minimum]
    if not mine:
        return None
    mine.sort(key=lambda frame: frame[:2])  # stable: then by position
    vector = []
    for dimension in range(len(mine[0][2])):
        there = [(frame[2][dimension], shared(word, frame)) for frame in mine if finite(frame[2][dimension])]
        if not there:
            vector.append(0.0)
        elif how == "mean":
            vector.append(sum(value for value, _ in there) / len(there))
        elif how == "max":
            vector.append(max(value for value, _ in there))
        elif how == "last":
            vector.append(there[-1][0])
        else:
            vector.append(sum(value * weight for value, weight in there) / sum(weight for _, weight in there))
    return vector


def nearest_row(word, frames, fates, within):
    middle = (word[0] + word[1]) / 2
    rows = [row for row, fate in enumerate(fates) if fate is None]
    distance = {row: abs((frames[row][0] + frames[row][1]) / 2 - middle) for row in rows}
    near = [row for row in rows if distance[row] <= within]
    return min(near, key=lambda row: (distance[row], *frames[row][:2], row), default=None)


def last_fate(frame, words, kept, cut, segments, minimum):
    if any(shared(frame, words[index]) > minimum for index in kept):
        return "used"
    if any(shared(frame, words[index]) > minimum for index in cut):
        return "truncated"
    return "no_overlap" if any(shared(frame, label) > minimum for label in segments) else "outside_segments"
