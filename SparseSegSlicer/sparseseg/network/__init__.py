"""The 3-D U-Net that learns this one volume: device, samples, loss, training, prediction. It knows no other voice."""
