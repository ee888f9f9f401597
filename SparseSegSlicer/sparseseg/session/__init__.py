"""One opened job kept warm: annotation now, voices, judge, publisher; says who works next."""
