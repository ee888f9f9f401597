"""What is believed before any training on the patient: growing, interpolation, the refiner. It knows no other voice."""
