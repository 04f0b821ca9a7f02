from mosaic_lab.babistories.names_and_openings import parse_names, parse_openings


def test_names_are_short_items_of_a_list():
    answers = [
        "Sure!\n1. Ann\n2. Chloé\n3. Alexander\n4) Tom\n 5. Kim\n10. Mia",
        "1. Ann\n7. Mary Ann\n8. X2",
    ]
    # "1. Name" and the line's end are nine characters with a name of five letters.
    assert parse_names(answers) == ["Ann", "Mia"]
    assert parse_names(["1. Sara\n10. Sara\n"]) == ["Sara"]
    assert parse_names(["10. Sara\n"]) == []


def test_openings_are_all_beginnings_of_sentences_without_dots():
    answer = "Here they are:\n1. One day...\n2. Mr. Fox ran\n12) It was… cold.\nThe end"
    assert parse_openings([answer, answer]) == sorted(
        ["One", "One day", "Mr", "Mr Fox", "Mr Fox ran", "It", "It was", "It was cold"]
    )
    words = [f"w{number}" for number in range(20)]
    assert max(len(opening.split()) for opening in parse_openings([f"1. {' '.join(words)}"])) == 12
    assert parse_openings(['1. "Hello!" said Tom', "2. A (small) cat", "3. a_b"]) == []
