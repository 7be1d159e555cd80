"""Parts that several learners share: losses, readouts, projections, neuron models, passes of spiking networks."""
